//go:build !race

package jobs

import "time"

// takeover is how long a takeover on SQLite may take.
const takeover = time.Second

// many is how many keys are due at once.
const many = 10_000

// slow is by how much this is slower.
const slow = 1
