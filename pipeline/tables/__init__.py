"""What lies in the bucket: candidate tables in, runs out. Knows no Ray and no torch."""
