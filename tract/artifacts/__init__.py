"""What is on disk: run folders and their manifests, records of runs, exported judges, and where a judge's name leads."""
