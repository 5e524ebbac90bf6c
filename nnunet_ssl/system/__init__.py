"""What every part needs of the operating system: failures told as such, whole files, processes that end."""
