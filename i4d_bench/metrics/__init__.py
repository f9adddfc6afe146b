"""The metrics of DESIGN §5: functions → [B], one value per sample, and torchmetrics classes; `cards` says what they mean."""
