"""What runs until it is stopped: `ccd up`, `ccd daemon`, `ccd gateway`."""
