"""Raw recordings of states, drawn as pictures."""
