"""`ccd config`: are the settings right, and which are in force? Nothing is started here."""
