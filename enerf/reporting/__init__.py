"""Tables, plots and videos."""
