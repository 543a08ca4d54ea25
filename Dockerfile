# The image of configs/kuberay: docker build -t rayrank:0.1.0 .
# The base's Ray is the one of requirements.lock; gcs or azure in place of s3 for other object stores.
FROM rayproject/ray:2.60.0-py311-gpu
COPY --chown=ray . /rayrank
RUN pip install --no-cache-dir -c /rayrank/requirements.lock '/rayrank[s3]'
