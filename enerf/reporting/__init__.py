"""Tables, plots and videos of finished runs."""
