"""What runs until it is stopped: `ccd up`, `ccd daemon`, `ccd gateway`.

No other room starts processes that stay. Begin with `up`: `plan` judges the settings, `unit` supervises the parts.
"""
