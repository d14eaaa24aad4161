"""Disk: the coordinator's journal, spool and steps, a site's outbox. Each write is whole or absent."""
