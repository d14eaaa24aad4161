"""Engines: what runs a study. Import the one you need; nothing is loaded here."""
