//! Clients that write down what they saw.
