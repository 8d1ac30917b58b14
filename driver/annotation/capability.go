package annotation

// lack is something that the injector does and the driver cannot do yet.
type lack struct {
	what string
	// instead is what to write until then.
	instead string
}

// lacks are by the annotation that needs them. When the driver learns one, its
// line goes, and the row emits the attribute in place of lacking.
func lacks() map[string]lack {
	return map[string]lack{
		nameToken:                                {"a file with the Vault token", "remove it and let a template write the secrets themselves"},
		familyTemplateFile + "X":                 {"a template from a ConfigMap or Secret", "write its text into agent-inject-template-FILE"},
		"template-static-secret-render-interval": {"the refresh of files", "remove it, and restart the pod to read a secret anew"},
		"template-lease-renewal-threshold":       {"the refresh of files", "remove it, and restart the pod to read a secret anew"},
	}
}

// lacking refuses what needs a capability that the driver does not have. To pass
// over it would start the pod with something else than what it asks for.
func lacking(row string) treatment {
	return func(r *reading, name, _ string) {
		lack := lacks()[row]
		r.refuse(name, "%s is not available in this version of vaultmount; %s", lack.what, lack.instead)
	}
}
