"""`ccd ask`: one question, or a file full of them."""
