package keywright

import (
	"encoding/json"
	"time"
)

// Opt is a parameter with three states. Its zero value is omitted from the
// request, [Set] sends a value, and [Null] sends null, which clears what the
// provider holds.
type Opt[T any] struct {
	value T
	state optState
}

type optState uint8

const (
	optOmitted optState = iota
	optNull
	optSet
)

// Set returns an Opt that sends v.
func Set[T any](v T) Opt[T] { return Opt[T]{value: v, state: optSet} }

// Null returns an Opt that sends null.
func Null[T any]() Opt[T] { return Opt[T]{state: optNull} }

// IsZero reports whether the parameter is omitted; encoding/json asks it for
// fields tagged omitzero.
func (o Opt[T]) IsZero() bool { return o.state == optOmitted }

// IsNull reports whether the parameter is sent as null.
func (o Opt[T]) IsNull() bool { return o.state == optNull }

// Get returns the value and whether there is one.
func (o Opt[T]) Get() (T, bool) { return o.value, o.state == optSet }

// MarshalJSON encodes the value, or null. Times are sent in UTC.
func (o Opt[T]) MarshalJSON() ([]byte, error) {
	if o.state != optSet {
		return []byte("null"), nil
	}
	if t, ok := any(o.value).(time.Time); ok {
		return json.Marshal(t.UTC())
	}
	return json.Marshal(o.value)
}
