"""What a run tells people at its end: `result` (result.json), `table` (a table and three sentences), `html` (one web
page), `compare` (runs side by side). `words` turns figures into sentences for all of them; nothing here loads jax.
"""
