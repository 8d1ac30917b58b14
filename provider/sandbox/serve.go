package sandbox

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/metrics"

	"github.com/vaultmount/vaultmount/provider/template"
)

// Main is the whole life of a worker: it confines its process for good, then runs
// templates until standard input ends. It works only in a process that a Pool started.
func Main() error { return serve(confinement(), executeOne) }

func serve(confinement []func() error, execute func(template.Template, template.Values) reply) error {
	for _, confine := range confinement {
		if err := confine(); err != nil {
			return errors.Join(err, writeFrame(os.Stdout, []byte(err.Error()), messageLimit))
		}
	}
	// The empty frame says that the worker is confined, and may be fed.
	if err := writeFrame(os.Stdout, nil, 0); err != nil {
		return err
	}
	return answer(os.Stdin, os.Stdout, execute)
}

// answer reads requests one after the other until there are no more.
func answer(in io.Reader, out io.Writer, execute func(template.Template, template.Values) reply) error {
	buffered := bufio.NewReader(in)
	for {
		payload, err := readFrame(buffered, requestLimit)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read a request: %w", err)
		}
		if err := answerOne(payload, out, execute); err != nil {
			return err
		}
		collect()
	}
}

func answerOne(payload []byte, out io.Writer, execute func(template.Template, template.Values) reply) error {
	request, err := decodeRequest(payload)
	if err != nil {
		return fmt.Errorf("read a request: %w", err)
	}
	templates, values, err := request.unpack()
	if err != nil {
		return fmt.Errorf("read a request: %w", err)
	}
	for _, t := range templates {
		executed := execute(t, values)
		if err := send(out, executed); err != nil {
			return fmt.Errorf("write a reply: %w", err)
		}
		if executed.Failure != "" {
			return nil
		}
		collect()
	}
	return nil
}

// garbageLimit is what a template may leave behind in bytes.
const garbageLimit = 8 << 20

// collect clears away what a template has left behind, if it is much: addresses are
// limited, and the next template may need a large piece of them.
func collect() {
	objects := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	if metrics.Read(objects); objects[0].Value.Uint64() > garbageLimit {
		runtime.GC()
	}
}

func send(out io.Writer, r reply) error {
	payload, err := json.Marshal(r)
	if err == nil && len(payload) > replyLimit {
		payload, err = json.Marshal(newReply(template.Result{}, tooMuch()))
	}
	if err != nil {
		return err
	}
	return writeFrame(out, payload, replyLimit)
}

// executeOne executes a template. A panic is the template's own fault and shows none of
// its data.
func executeOne(t template.Template, values template.Values) (executed reply) {
	defer func() {
		if recover() != nil {
			executed = newReply(template.Result{}, fmt.Errorf("%w: it makes the renderer panic", template.ErrInvalid))
		}
	}()
	result, err := template.Execute(t, values)
	if err == nil {
		err = checkSize(result)
	}
	return newReply(result, err)
}

func tooMuch() error {
	return fmt.Errorf("%w: what it writes and asks for is more than %d MiB", template.ErrInvalid, replyLimit>>20)
}

func checkSize(result template.Result) error {
	size := len(result.Output)
	for _, file := range result.Files {
		size += len(file.Content)
	}
	if size > outputLimit {
		return fmt.Errorf("%w: it writes more than %d MiB", template.ErrInvalid, outputLimit>>20)
	}
	for _, query := range result.Used {
		size += query.Size()
	}
	for _, query := range result.Missing {
		size += query.Size()
	}
	// To find that out in the reply takes several times as much memory.
	if size/3*4 > replyLimit {
		return tooMuch()
	}
	return nil
}
