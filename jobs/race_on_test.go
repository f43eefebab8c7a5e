//go:build race

package jobs

import "time"

// takeover is longer for what is slower.
const takeover = 3 * time.Second

// many is how many keys are due at once.
const many = 1_000

// slow is by how much this is slower.
const slow = 3
