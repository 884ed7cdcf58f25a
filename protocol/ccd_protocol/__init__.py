"""CCDP/1, the wire protocol of ccd, without any I/O. See SPEC.md beside this package."""
