"""The metrics of DESIGN §5. Each is a function → [B], one value per sample, and a torchmetrics class; `cards` says what they mean."""
