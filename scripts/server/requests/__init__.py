"""What a request asks for: fields of a body, in OpenAI's words or the pipeline's own, become a Generation."""
