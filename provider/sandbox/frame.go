package sandbox

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A frame is four bytes of length, the most significant first, and as many bytes.
const headerSize = 4

var errTooLong = errors.New("the message is too long")

// writeFrame makes no copy of the payload, which may have some MiB.
func writeFrame(w io.Writer, payload []byte, limit int) error {
	if len(payload) > limit {
		return fmt.Errorf("%w: %d bytes of at most %d", errTooLong, len(payload), limit)
	}
	if _, err := w.Write(binary.BigEndian.AppendUint32(nil, uint32(len(payload)))); err != nil {
		return err
	}
	_, err := w.Write(payload)
	return err
}

// readFrame reads a frame of whoever may be hostile: memory grows with what really
// came, not with what the header promises. It returns io.EOF only if there was no
// byte of a frame.
func readFrame(r io.Reader, limit int) ([]byte, error) {
	var header [headerSize]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return nil, err
	}
	length := int64(binary.BigEndian.Uint32(header[:]))
	if length > int64(limit) {
		return nil, fmt.Errorf("%w: %d bytes of at most %d", errTooLong, length, limit)
	}
	payload, err := io.ReadAll(io.LimitReader(r, length))
	if err != nil {
		return nil, err
	}
	if int64(len(payload)) < length {
		return nil, io.ErrUnexpectedEOF
	}
	return payload, nil
}
