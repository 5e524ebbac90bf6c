"""Unlabelled cases: preprocessing, splits, the second stream of the loader, weak and strong views."""
