"""What `others.py` is made of: a slow reading of captures, a model of the rules, and the counts of other programs."""
