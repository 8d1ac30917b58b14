package vault

// counter counts the values of JSON as it arrives, so that a response over a limit is
// refused before anything decodes it. It does not check the syntax: the decoder does,
// and decodes nothing that is not valid.
type counter struct {
	size     Size
	depth    int
	maxDepth int

	inString, escaped, inLiteral bool
}

// count takes the next part of a response and returns what that part adds.
func (c *counter) count(part []byte) (added Size) {
	before := c.size
	for _, b := range part {
		c.next(b)
	}
	c.size.Bytes += len(part)
	return c.size.Sub(before)
}

func (c *counter) next(b byte) {
	if c.inString {
		switch {
		case c.escaped:
			c.escaped = false
		case b == '\\':
			c.escaped = true
		case b == '"':
			c.inString = false
		}
		return
	}
	literal := false
	switch b {
	case '"':
		c.inString = true
		c.size.Values++
	case ':':
		c.size.Values-- // the string before was the key of a member
	case '{':
		c.size.Objects++
		c.open()
	case '[':
		c.open()
	case '}', ']':
		c.depth--
	case ',', ' ', '\t', '\n', '\r':
	default:
		literal = true
		if !c.inLiteral {
			c.size.Values++
		}
	}
	c.inLiteral = literal
}

func (c *counter) open() {
	c.size.Values++
	c.depth++
	c.maxDepth = max(c.maxDepth, c.depth)
}
