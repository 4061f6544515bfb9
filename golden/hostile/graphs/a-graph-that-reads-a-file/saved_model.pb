

ReadFile