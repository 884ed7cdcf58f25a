"""`ccd doctor` and `ccd bugreport`: what is wrong with this installation and how to mend it.

A check is a generator of findings and changes nothing; `finding` says what one is. Checks never run a CLI command that
could touch a login. Begin with `doctor`.
"""
