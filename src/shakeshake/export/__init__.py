"""Export trained runs to other formats and to the Hugging Face hub."""
