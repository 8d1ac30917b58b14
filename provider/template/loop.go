package template

import (
	"reflect"
	"strconv"
)

// maxRounds bounds loop. The memory for a million numbers is 8 MiB.
const maxRounds = 1 << 20

// loop counts from 0 to a number, or from one to another. Consul-template's has a
// goroutine that never ends unless the template takes all numbers; here they wait
// in a channel that is closed already, and behaves the same.
func (e *execution) loop(limits ...any) (<-chan int64, error) {
	if len(limits) != 1 && len(limits) != 2 {
		return nil, e.fail("loop: takes 1 or 2 numbers and not %d", len(limits))
	}
	var numbers []int64
	for _, limit := range limits {
		number, ok := toInt64(limit)
		if !ok {
			return nil, e.failOnData("loop: an argument of type %T is no whole number", limit)
		}
		numbers = append(numbers, number)
	}
	start, end := int64(0), numbers[len(numbers)-1]
	if len(numbers) == 2 {
		start = numbers[0]
	}
	// In two steps, since the difference may not fit.
	if start < end && (end-start < 0 || end-start > maxRounds) {
		return nil, e.failOnData("loop: more than %d rounds", maxRounds)
	}
	counted := make(chan int64, max(end-start, 0))
	for i := start; i < end; i++ {
		counted <- i
	}
	close(counted)
	return counted, nil
}

func toInt64(value any) (int64, bool) {
	switch v := reflect.ValueOf(value); v.Kind() {
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return v.Int(), true
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return int64(v.Uint()), true
	case reflect.String:
		if v.String() == "" {
			return 0, true
		}
		number, err := strconv.ParseInt(v.String(), 10, 64)
		return number, err == nil
	}
	return 0, false
}
