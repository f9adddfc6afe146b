"""The procedural head world: topology, joints and linear part, what the expressions do, what tells people apart."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from i4d_bench.camera import look_at
from i4d_bench.heads import procedural_mesh as parts
from i4d_bench.heads.base import REGIONS
from i4d_bench.heads.expressions import INDEX, NAMES, sample
from i4d_bench.heads.posing import pose, rodrigues
from i4d_bench.heads.procedural import ProceduralWorld
from i4d_bench.heads.procedural_field import EYE, EYE_RADIUS, MOUTH, MOUTH_HALF
from i4d_bench.heads.procedural_identity import ASYMMETRIC, FIELDS
from i4d_bench.render import mesh

RED, GREEN, BLUE = np.eye(3)


@pytest.fixture(scope="module")
def world() -> ProceduralWorld:
    return ProceduralWorld()


def expression(**coefficients: float) -> np.ndarray:
    """Coefficients by name; a name without a side moves both."""
    e = np.zeros(len(NAMES), np.float32)
    for name, value in coefficients.items():
        for full in (name,) if name in INDEX else (f"{name}Left", f"{name}Right"):
            e[INDEX[full]] = value
    return e


def random_expressions(count: int) -> list[np.ndarray]:
    return [sample(np.random.default_rng(k), "extreme" if k % 2 else "train") for k in range(count)]


def photograph(world, identity, e, colors, size=192, yaw=0.0) -> np.ndarray:
    """Which of the colours [K,3] each pixel shows most of, −1 for the background; vertices are painted by `colors(parts)`."""
    vertices = world.vertices(identity, e)
    surface = replace(world.surface(identity, e, vertices), albedo=colors, specular=np.zeros(len(vertices)))
    view, K = look_at(yaw, 0, size)
    light = mesh.Light(*(np.array(v, float) for v in ([0, 0, 1], [0] * 3, [0, 0, 1], [0] * 3, [1] * 3, [1] * 3)))
    image = mesh.render_mesh(vertices, world.faces, surface, world.face_regions, view, K, size, size, light)
    return np.where(image.alpha > 0.5, image.rgb.argmax(-1), -1)


def painted(world) -> np.ndarray:
    """Eyeballs green, the inside of the mouth blue, everything else red."""
    p = world.template.parts
    inner = np.isin(p, (parts.POCKET, parts.TEETH_UPPER, parts.TEETH_LOWER, parts.GUM, parts.TONGUE))
    return np.select([np.isin(p, (parts.EYE_LEFT, parts.EYE_RIGHT))[:, None], inner[:, None]], [GREEN, BLUE], RED)


def test_the_mesh_is_sound(world):
    t, v = world.template, world.template.vertices
    assert 5000 < len(v) < 14000 and np.isfinite(v).all()
    assert world.faces.min() == 0 and world.faces.max() == len(v) - 1
    assert (np.sort(world.faces, 1)[:, 1:] != np.sort(world.faces, 1)[:, :-1]).all()
    assert len(np.unique(world.faces)) == len(v)
    assert world.face_regions.shape == (len(world.faces),)
    assert set(np.unique(world.face_regions)) == {REGIONS.index(r) for r in ("head", "eyes", "mouth")}
    # The skin with lids and mouth pocket: no edge with more than two triangles or two of one direction, and its only
    # borders are the two inner edges of the lids and the cut through the chest.
    soft = world.faces[np.isin(t.parts[world.faces], (parts.SKIN, parts.LID_EDGE, parts.POCKET)).all(1)]
    directed = Counter(map(tuple, np.concatenate([soft[:, [0, 1]], soft[:, [1, 2]], soft[:, [2, 0]]]).tolist()))
    assert max(directed.values()) == 1
    loops = parts._loops(soft)
    assert sorted(bool(v[loop, 1].mean() > 0) for loop in loops) == [False, True, True]


def test_faces_look_outward(world):
    t = world.template
    for part, center in ((parts.EYE_LEFT, EYE), (parts.SKIN, np.array([0, 0.15, 0.0]))):
        f = world.faces[(t.parts[world.faces] == part).all(1)]
        a, b, c = (t.vertices[f[:, k]] for k in range(3))
        normal = np.cross(b - a, c - a)
        assert ((normal * (a - center)).sum(1) > 0).mean() > 0.93


def test_the_head_is_where_the_suite_expects_it(world):
    v, p = world.template.vertices, world.template.parts
    skin = v[p == parts.SKIN]
    middle = skin[np.abs(skin[:, 0]) < 0.01]
    assert skin[:, 1].max() == pytest.approx(0.42, abs=0.02)
    assert middle[:, 2].max() == pytest.approx(0.31, abs=0.015)  # nose
    assert skin[:, 2].min() == pytest.approx(-0.28, abs=0.02)
    assert np.abs(v[p == parts.EAR, 0]).max() == pytest.approx(0.22, abs=0.02)
    assert world.shapes.joints[3:] == pytest.approx(np.array([[0.084, 0.135, 0.184], [-0.084, 0.135, 0.184]]))


def test_landmarks_lie_where_ibug_puts_them(world):
    p = world.template.vertices[world.landmarks]
    assert len(np.unique(world.landmarks)) == 68
    assert np.abs(p[:17, 0] + p[16::-1, 0]).max() < 0.02  # the jaw is symmetric, right side first
    assert (np.diff(p[:17, 0]) > 0).all() and (np.diff(p[17:27, 0]) > 0).all()
    assert p[30, 2] == p[:, 2].max()  # the tip of the nose
    for start, side in ((36, -1), (42, 1)):
        eye = p[start : start + 6]
        assert np.abs(eye.mean(0)[:2] - EYE[:2] * (side, 1)).max() < 0.01
        assert eye[1:3, 1].min() > eye[4:6, 1].max()
    assert p[54, 0] == pytest.approx(MOUTH_HALF) and p[48, 0] == pytest.approx(-MOUTH_HALF)
    e = expression(jawOpen=1)
    opened = world.vertices(world.identity(0), e)[world.landmarks]
    assert (opened[61:64, 1] - opened[67:64:-1, 1]).min() > 0.04  # inner lips part


def test_linear_is_skinning_of_summed_offsets(world):
    """Against the plain formula of linear blend skinning (PAPER §5), with 4 × 4 matrices down the kinematic tree."""
    person, rest = world.identity(5), np.zeros(52)
    neutral, joints = world.vertices(person, rest, linear=True), world.joints(person)
    for e in random_expressions(6):
        offsets = neutral + np.tensordot(e.astype(float), world.shapes.expression, 1)
        angles, A = world.pose(e).reshape(5, 3), np.zeros((5, 4, 4))
        for j, parent in enumerate((None, 0, 1, 1, 1)):
            local = np.eye(4)
            local[:3, :3], local[:3, 3] = rodrigues(angles[j]), joints[j] - (0 if parent is None else joints[parent])
            A[j] = local if parent is None else A[parent] @ local
        A[:, :3, 3] -= np.einsum("jab,jb->ja", A[:, :3, :3], joints)
        T = np.einsum("vj,jab->vab", world.skin_weights, A)
        posed = np.einsum("vab,vb->va", T, np.concatenate([offsets, np.ones((len(offsets), 1))], 1))[:, :3]
        np.testing.assert_allclose(world.vertices(person, e, linear=True), posed, atol=1e-6)


def test_linear_offsets_add_up(world):
    """Without joint rotation, the linear part is linear in the expression, and linear in the identity's shape."""
    person = world.identity(2)
    neutral = world.vertices(person, np.zeros(52), linear=True)
    a, b = expression(mouthSmile=0.7, browDown=0.5), expression(eyeBlinkLeft=0.8, mouthPucker=0.4)
    one, two, both = (world.vertices(person, e, linear=True) - neutral for e in (a, b, a + b))
    np.testing.assert_allclose(one + two, both, atol=1e-7)
    half = replace(person, shape=person.shape / 2)
    np.testing.assert_allclose(
        world.vertices(half, np.zeros(52), linear=True), (neutral + world.template.vertices) / 2, atol=1e-9
    )


def test_weights_and_pose(world):
    w = world.skin_weights
    assert (w >= 0).all() and np.abs(w.sum(1) - 1).max() < 1e-12
    p = world.template.parts
    assert (w[p == parts.EYE_LEFT, 3] == 1).all() and (w[p == parts.EYE_RIGHT, 4] == 1).all()
    assert (w[p == parts.TEETH_UPPER, 2] == 0).all() and (w[p == parts.TEETH_LOWER, 2] == 1).all()
    angles = pose(expression(jawOpen=1, eyeLookUpLeft=1))
    assert (angles[:6] == 0).all() and angles[6] > 0.3 and angles[9] < 0 and angles[12] == 0


@pytest.mark.parametrize("name", NAMES)
def test_every_coefficient_moves_the_face(world, name):
    person, e = world.identity(1), expression(**{name: 1.0})
    for linear in (False, True):
        moved = np.linalg.norm(world.vertices(person, e, linear) - world.vertices(person, 0 * e, linear), axis=1)
        assert moved.max() > 0.004, linear
        assert moved[world.template.vertices[:, 2] < -0.1].max() == 0  # the back of the head stays


def test_gaze_turns_the_eyeball_about_its_centre(world):
    person = world.identity(4)
    center, on = world.joints(person)[3], world.template.parts == parts.EYE_LEFT
    pole = np.flatnonzero(on)[0]
    for e, direction in ((expression(eyeLookOutLeft=1), (1, 0)), (expression(eyeLookUpLeft=1), (0, 1))):
        v = world.vertices(person, e)
        np.testing.assert_allclose(np.linalg.norm(v[on] - center, axis=1), EYE_RADIUS, atol=1e-6)
        gaze = (v[pole] - center) / EYE_RADIUS
        assert gaze[:2] @ direction > 0.3
        assert np.abs(gaze[:2] @ direction[::-1]) < 0.01


@pytest.mark.parametrize("seed", range(6))
def test_blinking_hides_the_eyeballs(world, seed):
    person, colors = world.identity(seed), painted(world)
    opened = (photograph(world, person, expression(), colors) == 1).sum()
    for e in (
        expression(eyeBlink=1),
        expression(eyeBlink=1, eyeLookDown=0.6, eyeSquint=0.6),
        expression(eyeBlink=1, eyeWide=0.3),
    ):
        closed = (photograph(world, person, e, colors) == 1).sum()
        assert opened > 110
        assert closed <= 0.02 * opened


def test_half_closed_lids_stay_outside_the_eyeball(world):
    """On the arc, not on the straight way between open and closed that the linear part takes."""
    person = world.identity(3)
    rims = np.unique(world.template.parent[world.template.parts == parts.LID_EDGE])
    left = rims[world.template.vertices[rims, 0] > 0]
    for blink in (0.25, 0.5, 0.75, 1.0):
        d = world.vertices(person, expression(eyeBlink=blink))[left] - world.joints(person)[3]
        assert np.linalg.norm(d, axis=1).min() > EYE_RADIUS + 0.001
    straight = world.vertices(person, expression(eyeBlink=0.5), linear=True)[left]
    arc = world.vertices(person, expression(eyeBlink=0.5))[left]
    assert np.linalg.norm(straight - arc, axis=1).max() > 0.001


@pytest.mark.parametrize("seed", range(4))
def test_opening_the_jaw_shows_the_inside_of_the_mouth(world, seed):
    person, colors = world.identity(seed), painted(world)
    area = [(photograph(world, person, expression(jawOpen=j), colors) == 2).sum() for j in (0, 0.5, 1)]
    assert area[0] < 25
    assert area[0] + 80 < area[1] and area[1] * 1.5 < area[2]


def test_showing_teeth_and_tongue(world):
    person, p = world.identity(7), world.template.parts
    teeth = np.where(np.isin(p, (parts.TEETH_UPPER, parts.TEETH_LOWER))[:, None], GREEN, RED)
    tongue = np.where((p == parts.TONGUE)[:, None], GREEN, RED)
    seen = lambda e, colors: (photograph(world, person, e, colors) == 1).sum()  # noqa: E731
    bare = expression(mouthUpperUp=0.8, mouthLowerDown=0.9, mouthStretch=0.6)
    assert seen(bare, teeth) > 60
    assert seen(expression(tongueOut=1, jawOpen=0.6), tongue) > 150


def test_closed_mouths_hide_the_teeth(world):
    """Whatever closed lips do — press, roll, pucker, smile, frown — no tooth comes through them."""
    p = world.template.parts
    teeth = np.where(np.isin(p, (parts.TEETH_UPPER, parts.TEETH_LOWER, parts.GUM, parts.TONGUE))[:, None], GREEN, RED)
    press = expression(mouthPress=0.9, mouthRollLower=0.6, mouthRollUpper=0.6)
    closed = [expression(), press, expression(mouthPucker=1), expression(mouthSmile=1, cheekSquint=0.5), expression(mouthFrown=1),
              expression(cheekPuff=1, mouthPress=0.4), expression(mouthLeft=1)]  # fmt: skip
    for seed in range(4):
        for e in closed:
            assert (photograph(world, world.identity(seed), e, teeth) == 1).sum() <= 12, (seed, e.nonzero())


def test_lips_do_not_pass_through_each_other(world):
    low, high = world.shapes._lips[:2]
    push = expression(mouthShrugLower=1, mouthPress=1, mouthClose=0.5, mouthRollLower=1)
    for seed in range(4):
        v = world.vertices(world.identity(seed), push)
        assert (v[low, 1] - v[high, 1]).max() < 0.0035
        straight = world.vertices(world.identity(seed), push, linear=True)
        assert (straight[low, 1] - straight[high, 1]).max() > 0.01  # a linear model lets them


def test_symmetric_people_make_symmetric_faces(world):
    """The average head with even strengths: mirrored vertices do mirrored things."""
    person = replace(world.identity(0), shape=np.zeros(len(FIELDS)))
    on = np.random.default_rng(0).choice(len(world.template.vertices), 1500, replace=False)
    v, p, side = world.template.vertices, world.template.parts, world.template.side
    other = np.select(
        [p == parts.EYE_LEFT, p == parts.EYE_RIGHT], [np.uint8(parts.EYE_RIGHT), np.uint8(parts.EYE_LEFT)], p
    )
    away = lambda i: np.abs(v[i] * (-1, 1, 1) - v).sum(1) + (other != p[i]) + 0.001 * (side != side[i])  # noqa: E731
    mirror = np.array([away(i).argmin() for i in on])
    assert np.abs(v[on] * (-1, 1, 1) - v[mirror]).max() < 1e-6
    for e in (
        expression(mouthSmile=1, jawOpen=0.5),
        expression(eyeBlink=0.6, browDown=1),
        expression(cheekPuff=1, eyeLookUp=1),
    ):
        posed = world.vertices(person, e, linear=True)
        np.testing.assert_allclose(posed[on] * (-1, 1, 1), posed[mirror], atol=1e-6)


def test_one_sided_expressions_stay_on_their_side(world):
    person = world.identity(9)
    neutral = world.vertices(person, np.zeros(52))
    right = world.template.vertices[:, 0] < -0.03
    for name in ("mouthSmileLeft", "eyeBlinkLeft", "browDownLeft", "noseSneerLeft", "cheekSquintLeft"):
        moved = np.linalg.norm(world.vertices(person, expression(**{name: 1.0})) - neutral, axis=1)
        assert moved.max() > 0.007
        assert moved[right].max() < 0.15 * moved.max(), name


def test_effects_beyond_the_linear_part(world):
    """Where two expressions meet, the result is not the sum of both: correctives and arcs."""
    person = replace(world.identity(3), shape=np.zeros(len(FIELDS)))
    neutral = world.vertices(person, np.zeros(52))
    for a, b in (("mouthSmile", "cheekSquint"), ("eyeBlink", "eyeSquint"), ("mouthPucker", "mouthSmile")):
        both = world.vertices(person, expression(**{a: 1, b: 1})) - neutral
        apart = sum(world.vertices(person, expression(**{n: 1})) - neutral for n in (a, b))
        assert np.abs(both - apart).max() > 0.002, (a, b)


def test_people_differ_in_shape_looks_and_strength(world):
    people = [world.identity(seed) for seed in range(8)]
    rest = np.stack([world.vertices(p, np.zeros(52)) for p in people])
    smile = np.stack([world.vertices(p, expression(mouthSmile=1)) for p in people]) - rest
    for i in range(8):
        for j in range(i):
            assert np.abs(rest[i] - rest[j]).max() > 0.01
            assert np.abs(smile[i] - smile[j]).max() > 1e-4
            assert not np.allclose(people[i].appearance.skin, people[j].appearance.skin)
    assert len(FIELDS) >= 30 and set(ASYMMETRIC) <= {name for name, _ in FIELDS}
    sides = rest[:, :, 0].max(1) + rest[:, :, 0].min(1)
    assert np.abs(sides).max() < 0.02  # people are a little, not grossly, asymmetric


def test_the_same_seed_is_the_same_person_in_another_world(world):
    other = ProceduralWorld()
    e = random_expressions(2)[1]
    a, b = world.identity(11), other.identity(11)
    va, vb = world.vertices(a, e), other.vertices(b, e)
    np.testing.assert_array_equal(va, vb)
    sa, sb = world.surface(a, e, va), other.surface(b, e, vb)
    for name in ("normals", "albedo", "specular"):
        np.testing.assert_array_equal(getattr(sa, name), getattr(sb, name))


def test_a_changed_copy_of_a_person_is_another_person(world):
    """What is remembered belongs to the identity itself, not to its seed."""
    person = world.identity(12)
    first = world.vertices(person, np.zeros(52))
    wider = replace(person, shape=person.shape + np.eye(len(FIELDS))[0])
    assert np.abs(world.vertices(wider, np.zeros(52)) - first).max() > 0.003
    for seed in range(100, 180):  # more people than are remembered
        world.vertices(world.identity(seed), np.zeros(52))
    np.testing.assert_array_equal(world.vertices(person, np.zeros(52)), first)


def test_any_expression_of_anyone_is_a_finite_head(world):
    for k, e in enumerate(random_expressions(24)):
        person = world.identity(1000 + k)
        v = world.vertices(person, e)
        s = world.surface(person, e, v)
        assert np.isfinite(v).all() and np.abs(v).max() < 0.9
        np.testing.assert_allclose(np.linalg.norm(s.normals, axis=1), 1, atol=1e-6)
        assert s.albedo.min() >= 0 and s.albedo.max() <= 1 and s.specular.min() >= 0 and s.specular.max() <= 1
        assert (
            np.abs(v - world.vertices(person, e, linear=True)).max() < 0.08
        )  # correctives correct, they do not replace


def test_mouth_and_eyes_are_labelled(world):
    t = world.template
    label = lambda part: set(world.face_regions[(t.parts[world.faces] == part).all(1)])  # noqa: E731
    assert label(parts.EYE_LEFT) == {REGIONS.index("eyes")}
    assert label(parts.POCKET) == label(parts.TONGUE) == {REGIONS.index("mouth")}
    assert label(parts.EAR) == {REGIONS.index("head")}
    middle = t.vertices[world.faces].mean(1)
    lips = (np.abs(middle - MOUTH) < (0.03, 0.015, 0.02)).all(1)
    assert (world.face_regions[lips] == REGIONS.index("mouth")).all()
