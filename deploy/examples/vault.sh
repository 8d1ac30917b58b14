# Vault's side of pod.yaml: a secret, a policy that lets it be read, and a role for the
# service account of the pod. Run it where the vault command is logged in:
#     kubectl exec -i vault-0 -- sh < vault.sh
set -eu
vault secrets enable -path=internal kv-v2
vault kv put internal/database/config username="db-readonly-username" password="db-secret-password"
vault policy write internal-app - <<EOF
path "internal/data/database/config" {
   capabilities = ["read"]
}
EOF
# Vault asks this API server whether a token is valid, with its own service account,
# which needs the ClusterRole system:auth-delegator.
vault auth enable kubernetes
vault write auth/kubernetes/config kubernetes_host="${KUBERNETES_HOST:-https://kubernetes.default.svc}"
vault write auth/kubernetes/role/internal-app \
    bound_service_account_names=internal-app \
    bound_service_account_namespaces=default \
    policies=internal-app \
    ttl=24h
