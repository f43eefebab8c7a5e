package keywrighttest

import "net/http"

// WithObserver calls f after each request, with the status that was sent, 0 if
// none was. Requests that arrive at the same time call it at the same time.
func WithObserver(f func(r Request, status int)) Option {
	return func(o *options) { o.observer = f }
}

// observe returns w and a function to call when the request is over.
func (s *server) observe(w http.ResponseWriter, r *Request) (http.ResponseWriter, func()) {
	if s.opts.observer == nil {
		return w, func() {}
	}
	o := &observed{ResponseWriter: w}
	return o, func() {
		s.mu.Lock()
		seen := *r
		s.mu.Unlock()
		s.opts.observer(seen, o.status)
	}
}

// observed remembers the status.
type observed struct {
	http.ResponseWriter
	status int
}

func (o *observed) WriteHeader(status int) {
	o.status = status
	o.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (o *observed) Unwrap() http.ResponseWriter { return o.ResponseWriter }
