"""Datasets: posed photographs and labelled images."""
