// Makes this folder's libraries anew, in an empty folder elsewhere:
//   npm install @tanstack/table-core@8.21.3 gsplat@1.2.9 esbuild && node …/vendor/build.mjs …/vendor
import { execFileSync } from "node:child_process";
import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const out = process.argv[2];
const tables = readFileSync("node_modules/@tanstack/table-core/build/umd/index.production.js", "utf8");
writeFileSync(join(out, "table-core.min.js"), tables.replace(/^\/\/# sourceMappingURL.*\n?/m, ""));
copyFileSync("node_modules/@tanstack/table-core/LICENSE", join(out, "table-core.LICENSE"));

writeFileSync("entry.js", 'export { Camera, OrbitControls, Scene, Splat, SplatData, Vector3, WebGLRenderer } from "gsplat";');
execFileSync("npx", ["esbuild", "entry.js", "--bundle", "--format=iife", "--global-name=SPLAT", "--minify", "--outfile=bundle.js"]);
// A page from the disk starts no worker that is a module: they become classic ones, which know no import.meta.
const classic = (source) => Buffer.from(source, "base64").toString().replaceAll("import.meta.url", "self.location.href");
const splats = readFileSync("bundle.js", "utf8")
  .replace(/="([A-Za-z0-9+/=]{2000,})"/g, (_, source) => `="${Buffer.from(classic(source)).toString("base64")}"`)
  .replaceAll('"URL.revokeObjectURL(import.meta.url);",', "")
  .replaceAll('type:"module"', 'type:"classic"');
writeFileSync(join(out, "gsplat.min.js"), splats);
copyFileSync("node_modules/gsplat/LICENSE", join(out, "gsplat.LICENSE"));
