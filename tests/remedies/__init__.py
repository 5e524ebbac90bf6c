"""For each remedy that the package prints: obey it, and the complaint is gone."""
