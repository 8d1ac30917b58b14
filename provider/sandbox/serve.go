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

// Main is the whole life of a worker: it confines its process for good, then executes
// templates until standard input ends. It works only in a process that a Pool started.
func Main() error { return serve(confinement(), execute) }

type executor func(template.Template, template.Values) reply

func serve(confinement []func() error, execute executor) error {
	for _, confine := range confinement {
		if err := confine(); err != nil {
			return errors.Join(err, writeFrame(os.Stdout, []byte(err.Error()), messageLimit))
		}
	}
	// The empty frame says that the worker is confined.
	if err := writeFrame(os.Stdout, nil, 0); err != nil {
		return err
	}
	input := bufio.NewReader(os.Stdin)
	for {
		payload, err := readFrame(input, requestLimit)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read a request: %w", err)
		}
		if err := answer(payload, os.Stdout, execute); err != nil {
			return err
		}
	}
}

// answer sends a reply for each template of a request, up to the first failure.
func answer(payload []byte, output io.Writer, execute executor) error {
	templates, values, err := decodeRequest(payload)
	if err != nil {
		return fmt.Errorf("read a request: %w", err)
	}
	for _, t := range templates {
		executed := execute(t, values)
		payload, err := json.Marshal(executed)
		if err == nil && len(payload) > replyLimit {
			executed = newReply(template.Result{}, tooMuch())
			payload, err = json.Marshal(executed)
		}
		if err == nil {
			err = writeFrame(output, payload, replyLimit)
		}
		if err != nil {
			return fmt.Errorf("write a reply: %w", err)
		}
		if executed.Failure != "" {
			break
		}
		collectGarbage()
	}
	return nil
}

// collectGarbage frees what a template left behind, if it is much: addresses are limited,
// and the next template may need a large piece of them.
func collectGarbage() {
	const much = 8 << 20 // bytes
	objects := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	if metrics.Read(objects); objects[0].Value.Uint64() > much {
		runtime.GC()
	}
}

// execute executes a template. A panic is the template's own fault and shows none of its
// data.
func execute(t template.Template, values template.Values) (executed reply) {
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

// checkSize is for a result that would take several times its memory in a reply.
func checkSize(result template.Result) error {
	size := outputSize(result)
	if size > fileLimit {
		return fmt.Errorf("%w: it writes more than %d MiB", template.ErrInvalid, fileLimit>>20)
	}
	for _, dependencies := range [][]template.Dependency{result.Used, result.Missing} {
		for _, dependency := range dependencies {
			size += int64(dependency.Size())
		}
	}
	if size/3*4 > replyLimit {
		return tooMuch()
	}
	return nil
}

// outputSize is the size of all files of a result in bytes.
func outputSize(result template.Result) int64 {
	size := int64(len(result.Output))
	for _, file := range result.Files {
		size += int64(len(file.Content))
	}
	return size
}
