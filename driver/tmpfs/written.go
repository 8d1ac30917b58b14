package tmpfs

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"slices"
)

// Written is what this package last wrote into a volume, in the order of paths. The
// driver compares a new set with it, and never with the volume: a container may be able
// to write there, so the volume can hold files of any size and any type.
type Written []WrittenFile

// WrittenFile is one file as it was written.
type WrittenFile struct {
	Path string
	// Sum is the SHA-256 of the content, and Size its length in bytes.
	Sum      []byte
	Size     int64
	Perms    uint32
	UID, GID int
}

func recordOf(set Set) Written {
	all := make(Written, 0, len(set.Files))
	for _, file := range set.Files {
		sum, owner := sha256.Sum256(file.Content), set.ownerOf(file)
		all = append(all, WrittenFile{Path: file.Path, Sum: sum[:], Size: int64(len(file.Content)), Perms: file.Perms, UID: owner.UID, GID: owner.GID})
	}
	slices.SortFunc(all, func(a, b WrittenFile) int { return cmp.Compare(a.Path, b.Path) })
	return all
}

// Is reports whether this is what writing set leaves. It is false for an empty record:
// nothing is known of the volume then.
func (w Written) Is(set Set) bool {
	return len(w) > 0 && slices.EqualFunc(w, recordOf(set), func(a, b WrittenFile) bool {
		return a.Path == b.Path && a.Size == b.Size && a.Perms == b.Perms && a.UID == b.UID && a.GID == b.GID && bytes.Equal(a.Sum, b.Sum)
	})
}
