# The tutorial's steps in vault-0: a secret, a policy, a login for pods.
set -eu
vault secrets enable -path=internal kv-v2
vault kv put internal/database/config username="db-readonly-username" password="db-secret-password"
vault auth enable kubernetes
# Vault shows its own token and certificate authority to the API server.
vault write auth/kubernetes/config kubernetes_host=https://10.111.0.1:6443
vault policy write internal-app - <<EOF
path "internal/data/database/config" {
   capabilities = ["read"]
}
EOF
vault write auth/kubernetes/role/internal-app \
    bound_service_account_names=internal-app \
    bound_service_account_namespaces=default \
    policies=internal-app \
    ttl=24h
