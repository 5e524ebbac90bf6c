"""What every semi-supervised trainer shares: settings, streams, EMA, ramps, checkpoints, monitoring."""
