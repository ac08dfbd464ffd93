"""Options, declared once, and the command-line parser that is made from them."""
