package cluster

// CgroupName is cgroupName, for the tests that look for what is left.
func CgroupName(runDir string) string { return cgroupName(runDir) }
