"""The bus: who hears what, in which order."""
