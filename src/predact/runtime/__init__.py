"""What every part stands on: errors, seeds, devices, paths, artifacts, checkpoints, the Trainer."""
