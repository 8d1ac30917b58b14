package vault

import (
	"errors"
	"fmt"
	"net/http"
)

// longestAnswer is as much as one file of a volume may hold, and four times what
// Vault's own storage takes as one secret. The client reads an answer into memory as
// a whole, several times over, whoever sends it.
const longestAnswer = 4 << 20

// bound has reading an answer fail once it is too long.
func bound(response *http.Response) {
	if response != nil && response.Body != nil {
		response.Body = http.MaxBytesReader(nil, response.Body, longestAnswer)
	}
}

// lengthOf says in the words of an answer what net/http says of a request.
func lengthOf(err error) error {
	var long *http.MaxBytesError
	if errors.As(err, &long) {
		return fmt.Errorf("the answer is longer than %d MiB; is this a Vault, and is the path not too much at once?", long.Limit>>20)
	}
	return err
}
