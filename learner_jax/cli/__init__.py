"""The terminal: `learner COMMAND`, its flags, its config files, and what it shows while a study runs."""
