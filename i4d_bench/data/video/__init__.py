"""Real video: files, landmarks, mattes, cameras, and the data sets made of them."""
