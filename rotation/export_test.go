package rotation

import "github.com/keywright/keywright/internal/durable"

// WithFS makes an engine and its sinks use a file system.
func WithFS(fsys durable.FS) Option {
	return func(e *Engine) error {
		e.fsys = fsys
		return nil
	}
}
