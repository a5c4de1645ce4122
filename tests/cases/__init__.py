"""Files as people have them, after public reports: what each is read as, or why it is refused."""
