// Package contract holds tests of one question: is exactly this request
// emitted? They use gock, whose mocks, configuration and transport are global,
// and therefore have a package of their own in which nothing runs in parallel.
package contract
