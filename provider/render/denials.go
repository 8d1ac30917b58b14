package render

type denied struct {
	functions []string // patterns of path.Match
	why       string
}

// denials account for every function of consul-template that is not offered.
func denials() []denied {
	return []denied{
		{
			[]string{"file"},
			"it would read a file of the node; put the content into Vault",
		},
		{
			[]string{"env", "mustEnv", "envOrDefault"},
			"it would read the driver's environment; write the value into the template",
		},
		{
			[]string{"plugin"},
			"it would run a program on the node",
		},
		{
			[]string{"writeToFile"},
			"it would write to the node; make one template/<file> for each file",
		},
		{
			[]string{"sockaddr"},
			"it would show the node's addresses; use the pod's downward API",
		},
		{
			[]string{"spew_dump", "spew_printf"},
			"it would print to the driver's output; use spew_sdump or spew_sprintf",
		},
		{
			[]string{"pkiCert"},
			`use secret with arguments: {{ with secret "pki/issue/ROLE" "common_name=NAME" }}`,
		},
		{
			[]string{"key", "keyExists", "keyOrDefault", "ls", "safeLs", "tree", "safeTree", "service", "services", "connect", "node", "nodes", "datacenters", "peerings", "partitions", "caRoots", "caLeaf", "exportedServices", "importedServices"},
			"it asks Consul, and vaultmount talks to Vault alone",
		},
		{
			[]string{"nomad*"},
			"it asks Nomad, and vaultmount talks to Vault alone",
		},
	}
}
