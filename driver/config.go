package driver

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/vaultmount/vaultmount/driver/injector"
	"github.com/vaultmount/vaultmount/provider"
)

// Config is what a driver needs to know of its node.
type Config struct {
	// Name is the name of the CSIDriver object, at most 63 characters.
	Name string
	// Version is reported to the kubelet and has no meaning to it.
	Version string
	// NodeName is the name of the Node object.
	NodeName string
	// HostIP is the node's address for templates that ask for it, empty if it is
	// not known.
	HostIP string
	// KubeletRoot is the kubelet's --root-dir, an absolute path that is the same
	// inside and outside the driver's container.
	KubeletRoot string
	// VolumeSize is the size in bytes of a volume that asks for none, and
	// MaxVolumeSize the largest that one may ask for.
	VolumeSize, MaxVolumeSize int64
	// VolumeCapacity is the capacity of the node for volumes, in bytes; 0 for no limit.
	VolumeCapacity int64
	// NamespaceShare is the part of the capacity that the volumes of one namespace may
	// take, in percent, 1 to 100; 0 is DefaultNamespaceShare.
	NamespaceShare int
	// Annotations are the settings for volumes that hold the annotations of pods:
	// the prefix, and what the administrator allows. New sets the rest.
	Annotations injector.Translator
	// StaticInterval is the time between two reads of a static secret, of volumes
	// that do not say; 0 is the provider's.
	StaticInterval time.Duration
	// KeepTokens leaves the Vault tokens of volumes that do not say to expire.
	KeepTokens bool
	Vault      VaultConfig
}

// Validate reports what no driver can work with.
func (c Config) Validate() error {
	switch {
	case c.Name == "":
		return errors.New("the driver name is empty")
	case len(c.Name) > 63:
		return fmt.Errorf("the driver name %q is longer than the 63 characters that CSI allows", c.Name)
	case len(validation.IsDNS1123Subdomain(c.Name)) > 0:
		return fmt.Errorf("the driver name %q is not a domain name of lower-case letters, digits, hyphens and dots, as CSI requires; write it like csi.example.com", c.Name)
	case c.NodeName == "":
		return errors.New("the node name is empty")
	case !filepath.IsAbs(c.KubeletRoot):
		return fmt.Errorf("the kubelet root %q is not an absolute path", c.KubeletRoot)
	case c.StaticInterval != 0 && c.StaticInterval < provider.MinInterval:
		return fmt.Errorf("the interval of static secrets, %s, is shorter than %s", c.StaticInterval, provider.MinInterval)
	case c.VolumeSize <= 0 || c.MaxVolumeSize < c.VolumeSize:
		return fmt.Errorf("the largest volume size, %d bytes, is less than the usual one, %d bytes", c.MaxVolumeSize, c.VolumeSize)
	case c.VolumeCapacity != 0 && c.VolumeCapacity < c.MaxVolumeSize:
		return fmt.Errorf("the capacity of the node, %d bytes, is less than the %d that one volume may ask for; raise --volume-capacity", c.VolumeCapacity, c.MaxVolumeSize)
	case c.NamespaceShare < 0 || c.NamespaceShare > 100:
		return fmt.Errorf("the share of a namespace, %d %%, is not from 1 to 100", c.NamespaceShare)
	case c.VolumeCapacity != 0 && c.NamespaceQuota() < c.MaxVolumeSize:
		return fmt.Errorf("the share of a namespace, %d bytes of the node's capacity, is less than the %d that a single volume may ask for; raise --namespace-share or --volume-capacity, or lower --max-volume-size", c.NamespaceQuota(), c.MaxVolumeSize)
	}
	return checkPrefix(c.Annotations.Prefix)
}

// checkPrefix keeps the annotations apart from the driver's own attributes and
// from what the kubelet adds.
func checkPrefix(prefix string) error {
	if prefix == "" {
		return nil
	}
	domain, isPrefix := strings.CutSuffix(prefix, "/")
	if problems := validation.IsDNS1123Subdomain(domain); !isPrefix || len(problems) > 0 || !strings.Contains(domain, ".") || prefix == kubeletPrefix {
		return fmt.Errorf("the prefix of annotations %q is not a domain with a slash; write it like %q", prefix, injector.DefaultPrefix)
	}
	return nil
}

// DefaultNamespaceShare keeps the other half of the capacity for other namespaces.
const DefaultNamespaceShare = 50

// NamespaceQuota is what the volumes of one namespace may take, in bytes; 0 for no
// limit.
func (c Config) NamespaceQuota() int64 {
	return c.VolumeCapacity * int64(cmp.Or(c.NamespaceShare, DefaultNamespaceShare)) / 100
}
